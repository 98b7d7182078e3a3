-- title: What left the building
-- about: One row for each intended call to a hosted model: whose data, of which class, to whom, on which basis, how it ended, at what cost.
-- param: since moment = null
-- param: until moment = null
SELECT
    /* site */ intended_at, request_id, tenant_ref, actor_ref, purpose, class, provider, model, region, attempt, result,
    consent_basis, approver, round(cost_usd, 9) AS cost_usd, waybill_hash
FROM crossings
WHERE (CAST($since AS TIMESTAMPTZ) IS NULL OR intended_at >= $since)
    AND (CAST($until AS TIMESTAMPTZ) IS NULL OR intended_at < $until)
ORDER BY intended_at, intent_id
