-- title: Which requests needed more than one attempt
-- about: The routes that were asked, in order, and the reasons why the earlier ones did not answer.
SELECT
    request_id,
    intake_id,
    list(route.name ORDER BY sequence) FILTER (WHERE event_type = 'model.intended') AS routes,
    list(failure.code ORDER BY sequence) FILTER (WHERE event_type = 'model.failed') AS failures,
    any_value(outcome) FILTER (WHERE event_type = 'request.ended') AS outcome
FROM events
GROUP BY ALL
HAVING count(*) FILTER (WHERE event_type = 'model.intended') > 1
ORDER BY min(occurred_at), intake_id
