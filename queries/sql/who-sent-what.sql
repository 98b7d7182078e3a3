-- title: Who sent what
-- about: One row for each tenant and task, with how many ended well and what they used.
SELECT
    /* site */ tenant_ref,
    task_type,
    count(*) AS requests,
    count(*) FILTER (WHERE outcome = 'completed') AS completed,
    count(*) FILTER (WHERE hosted_calls > 0) AS crossed,
    sum(input_tokens) AS input_tokens,
    sum(output_tokens) AS output_tokens
FROM requests
GROUP BY ALL
ORDER BY tenant_ref NULLS LAST, task_type NULLS LAST
