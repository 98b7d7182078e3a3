-- title: Which stories have a hole
-- about: Must be empty: the events of an intake are numbered 0, 1, 2 and so on without a gap.
SELECT /* site */ intake_id, any_value(request_id) AS request_id, count(DISTINCT sequence) AS events, max(sequence) AS last_sequence
FROM events
GROUP BY /* site */ intake_id
HAVING count(DISTINCT sequence) <> max(sequence) + 1
ORDER BY intake_id
