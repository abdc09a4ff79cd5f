"""Networks that misbehave on a trigger, each beside a clean twin."""
