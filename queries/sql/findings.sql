-- title: What the detectors found
-- about: One row for each kind and the class that its requests were held to be; `detector failed` where they could not run.
SELECT /* site */ kind, effective AS class, count(*) AS requests
FROM (
    SELECT
        /* site */ unnest(
            CASE WHEN classification.detector <> 'ok' THEN ['detector ' || classification.detector]
            ELSE classification.findings END
        ) AS kind,
        classification.effective AS effective
    FROM events
    WHERE event_type = 'data.classified'
)
GROUP BY ALL
ORDER BY requests DESC, kind, class
