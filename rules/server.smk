# The run's model server: started when a run starts (never on a dry run), ended when it ends.
#
# The supervisor is a process of its own. It serves the gateway that the stage scripts talk to,
# starts the model server at the first call that the cache cannot answer, and ends by itself when
# Snakemake dies without reaching these hooks. A process that runs a single job for another one (a
# remote job) starts nothing: it belongs to that one's run.


onstart:
    open_run()


onsuccess:
    close_run(finished=True)
    show_summaries()


onerror:
    close_run(finished=False)
