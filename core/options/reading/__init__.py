"""Option files as text: YAML within limits, located nodes of it, and files that build upon others."""
