# The run's model server: started when a run starts (never on a dry run), ended when it ends.
#
# The supervisor is a process of its own. It serves the gateway that the stage scripts talk to,
# starts the model server at the first call that the cache cannot answer, and ends by itself when
# Snakemake dies without reaching these hooks.


onstart:
    refresh_indexes()
    start_server()


onsuccess:
    stop_server()
    show_summaries()


onerror:
    stop_server()
