"""How it moves: topics, envelopes, processors, stages and the Faust application that hosts them."""
