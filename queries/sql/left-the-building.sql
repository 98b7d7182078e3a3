-- title: What left the building
-- about: One row for each intended call to a hosted model: whose data, of which class, to whom, and how it ended.
-- param: since moment = null
SELECT
    intended_at, request_id, tenant_ref, actor_ref, purpose, class, provider, model, region, attempt, result, waybill_hash
FROM crossings
WHERE CAST($since AS TIMESTAMPTZ) IS NULL OR intended_at >= $since
ORDER BY intended_at, intent_id
