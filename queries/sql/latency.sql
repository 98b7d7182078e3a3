-- title: How long models take, by route
-- about: Percentiles of the calls that were answered, in milliseconds, and of the time to the first token.
-- param: since moment = null
-- param: until moment = null
SELECT
    /* site */ route.name AS route,
    count(*) AS calls,
    round(quantile_cont(duration_ms, 0.5), 1) AS p50_ms,
    round(quantile_cont(duration_ms, 0.95), 1) AS p95_ms,
    round(quantile_cont(duration_ms, 0.99), 1) AS p99_ms,
    round(max(duration_ms), 1) AS max_ms,
    round(quantile_cont(first_chunk_ms, 0.5), 1) AS first_chunk_p50_ms
FROM events
WHERE event_type = 'model.completed' AND (CAST($since AS TIMESTAMPTZ) IS NULL OR occurred_at >= $since)
    AND (CAST($until AS TIMESTAMPTZ) IS NULL OR occurred_at < $until)
GROUP BY ALL
ORDER BY route
