"""The small form of the hostile servers; `python tests/attack/servers.py` runs the full form."""

from attack import servers


async def test_a_hostile_server_ends_as_specified_and_the_gateway_stays_small(tmp_path):
    said: list[str] = []
    results = await servers.run_servers(servers.SMALL, tmp_path, 10, said.append)
    print("\n".join(said))
    assert [result for result in results if result.problems] == []
    assert len(results) == len(servers.SMALL) + 1
