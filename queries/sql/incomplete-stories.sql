-- title: Which requests have begun and not ended
-- about: Intakes without an end that are older than some seconds; in a pipeline at rest there is none.
-- param: older_than_s integer = 60
SELECT /* site */ intake_id, request_id, tenant_ref, admitted_at, route, attempts, events
FROM requests
WHERE outcome IS NULL AND (admitted_at IS NULL OR admitted_at < now() - to_seconds($older_than_s))
ORDER BY admitted_at, intake_id
