-- title: How requests ended
-- about: One row for each outcome, with its share; requests that have not ended are counted as `open`.
-- param: since moment = null
-- param: until moment = null
SELECT
    /* site */ coalesce(outcome, 'open') AS outcome,
    count(*) AS requests,
    round(100.0 * count(*) / sum(count(*)) OVER (), 2) AS percent,
    round(median(duration_ms), 1) AS median_ms
FROM requests
WHERE (CAST($since AS TIMESTAMPTZ) IS NULL OR admitted_at >= $since)
    AND (CAST($until AS TIMESTAMPTZ) IS NULL OR admitted_at < $until)
GROUP BY ALL
ORDER BY requests DESC, outcome
