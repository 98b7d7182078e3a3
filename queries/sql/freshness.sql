-- title: How fresh the evidence is
-- about: One row for each partition: the last event, its place in the log, and its age in seconds now.
SELECT
    /* site */ log_partition,
    count(*) AS events,
    max(log_offset) AS last_offset,
    max(occurred_at) AS last_event,
    round(epoch(now()) - epoch(max(occurred_at)), 1) AS age_s
FROM events
GROUP BY /* site */ log_partition
ORDER BY /* site */ log_partition
