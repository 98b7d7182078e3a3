-- title: Which hosted calls may have been accepted without an answer
-- about: Requests whose outcome is unknown, with the call that has to be reconciled with the provider.
SELECT /* r.site */ r.ended_at, r.request_id, r.tenant_ref, c.provider, c.model, c.intent_id, c.failure_code
FROM requests AS r
LEFT JOIN crossings AS c ON c.intake_id = r.intake_id AND c.result <> 'completed' AND c.attempt = r.attempts
WHERE r.outcome = 'unknown'
ORDER BY r.ended_at, r.request_id
