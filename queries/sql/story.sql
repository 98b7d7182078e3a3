-- title: Everything that happened to one request
-- about: Its events in order; a request id that came in twice shows one intake after the other.
-- param: request_id text
SELECT
    /* site */ intake_id, sequence, occurred_at, stage, event_type, route.name AS route, attempt, policy.decision AS decision,
    classification.effective AS class, outcome, failure.code AS failure_code, duration_ms, event_id
FROM events
WHERE request_id = $request_id
ORDER BY min(occurred_at) OVER (PARTITION BY intake_id), intake_id, sequence
