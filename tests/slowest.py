"""The order of test files."""

# These take longest, so they start first when the tests run in several processes.
SLOWEST = (
    "test_kills.py",
    "test_reruns.py",
    "test_sharded_runs.py",
    "test_hub.py",
    "test_documented_commands.py",
    "test_settings.py",
    "test_user_errors.py",
    "test_checked_servers.py",
    "test_vocabulary_runs.py",
    "test_terminal.py",
    "test_corrected_runs.py",
    "test_review_page.py",
    "test_existing.py",
)
