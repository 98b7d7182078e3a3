-- title: Which events are stored more than once
-- about: Must be empty: each event is stored exactly once.
SELECT /* site */ event_id, count(*) AS times, list(log_partition || '/' || log_offset ORDER BY log_partition, log_offset) AS positions
FROM events
GROUP BY /* site */ event_id
HAVING count(*) > 1
ORDER BY times DESC, event_id
