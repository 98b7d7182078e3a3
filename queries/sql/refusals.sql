-- title: What was not answered, and why
-- about: Requests that policy denied, a model refused, or retention withheld, the latest first.
SELECT /* site */ ended_at, request_id, outcome, tenant_ref, class, route, failure_code
FROM requests
WHERE outcome IN ('denied', 'refused', 'withheld')
ORDER BY ended_at DESC, request_id
