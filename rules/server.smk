# Inputs:  none; the settings of the section `vlm`
# Outputs: none; the gateway and the model server of the run, which jobs find by environment variables
# Steps:   start the gateway and check the model server before the first job (never on a dry run),
#          stop both after the last
#
# Snakemake does not call the hooks of a module. A workflow that uses this one as a module calls them
# in its own hooks (docs/module.md).
#
# The supervisor is a separate process. It serves the gateway, starts the model server at the first
# request that is not cached, and ends by itself if Snakemake dies without reaching these hooks. A
# process that runs a single job of another run (a remote job) starts nothing.


onstart:
    if workflow.is_main_process:
        receive_sigterm_in_thread()
        prefix = as_workflow_error(session().start)(
            use_job_server=MAY_TUNE_SNAKEMAKE,
            asks_model=asks_model(),
            requested=requested_episodes(),
        )
        if prefix:
            use_job_server(prefix)
        lift_job_rate()
        keep_records_of_restored_files()


onsuccess:
    if workflow.is_main_process:
        session().stop(finished=True)
        session().print_summaries()


onerror:
    if workflow.is_main_process:
        session().stop(finished=False)
