"""Options against annotations: what is expected of each value, what a whole file must have, and how mistakes are said."""
