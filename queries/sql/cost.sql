-- title: What it cost, by tenant and model
-- about: Tokens and US dollars of answered calls, by the routes' own price lists.
-- param: since moment = null
-- param: until moment = null
SELECT
    /* site */ tenant_ref,
    route.provider AS provider,
    route.model AS model,
    count(*) AS calls,
    sum(usage.input_tokens) AS input_tokens,
    sum(usage.output_tokens) AS output_tokens,
    round(sum(usage.cost_usd), 6) AS cost_usd
FROM events
WHERE (event_type = 'model.completed' OR (event_type = 'model.failed' AND usage IS NOT NULL))
    AND (CAST($since AS TIMESTAMPTZ) IS NULL OR occurred_at >= $since)
    AND (CAST($until AS TIMESTAMPTZ) IS NULL OR occurred_at < $until)
GROUP BY ALL
ORDER BY cost_usd DESC, tenant_ref, model
