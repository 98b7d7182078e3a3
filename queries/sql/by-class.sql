-- title: Where each class of data went
-- about: One row for each class and placement that served it; a request without a route has no placement.
SELECT /* site */ class, placement, count(*) AS requests, sum(hosted_calls) AS hosted_calls
FROM requests
WHERE class IS NOT NULL
GROUP BY ALL
ORDER BY class, placement NULLS LAST
