-- title: Which requests needed more than one attempt
-- about: The routes that were asked, in order, local ones too, and the reasons why the earlier ones did not answer.
WITH attempts AS (
    SELECT
        /* site */ intake_id,
        attempt,
        any_value(request_id) AS request_id,
        any_value(route.name) AS route,
        any_value(failure.code) FILTER (WHERE event_type = 'model.failed') AS failure,
        min(occurred_at) AS begun_at
    FROM events
    WHERE event_type LIKE 'model.%' AND attempt IS NOT NULL
    GROUP BY ALL
)
SELECT
    /* site */ any_value(attempts.request_id) AS request_id,
    intake_id,
    list(attempts.route ORDER BY attempt) AS routes,
    list(attempts.failure ORDER BY attempt) FILTER (WHERE attempts.failure IS NOT NULL) AS failures,
    any_value(outcome) AS outcome
FROM attempts
LEFT JOIN requests USING (/* site */ intake_id)
GROUP BY /* site */ intake_id
HAVING count(*) > 1
ORDER BY min(begun_at), intake_id
