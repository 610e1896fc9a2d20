"""The run's own process: gateway, response cache, dispatcher, model servers, usage.

May import `signals` and what that may import.
"""
