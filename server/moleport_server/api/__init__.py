"""The REST API: one module per resource family, and the OpenAPI document made from the code."""
