-- title: Which hosted calls have no intent before them
-- about: Must be empty: evidence of a call comes before the call.
SELECT /* ending.site */ ending.occurred_at, ending.request_id, ending.event_id, ending.event_type, ending.route.name AS route
FROM events AS ending
LEFT JOIN events AS intent
    ON intent.event_id = ending.intent_id
    AND intent.event_type = 'model.intended'
    AND intent.intake_id = ending.intake_id
    AND intent.sequence < ending.sequence
WHERE ending.event_type IN ('model.completed', 'model.failed')
    AND ending.route.placement = 'hosted'
    AND intent.event_id IS NULL
ORDER BY ending.occurred_at, ending.event_id
