-- title: Why requests were rejected
-- about: One row for each reason with which a record broke its contract, and when it was last seen.
SELECT /* site */ failure.code AS code, count(*) AS requests, max(occurred_at) AS last_seen, any_value(failure.message) AS example
FROM events
WHERE event_type = 'request.rejected'
GROUP BY ALL
ORDER BY requests DESC, code
