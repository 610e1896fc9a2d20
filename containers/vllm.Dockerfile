# vLLM for NVIDIA GPUs in the version that Cuesheet is tested with (docs/containers.md). Arguments after
# the image's name are those of vLLM's server, for example Qwen/Qwen3-VL-8B-Instruct.
FROM vllm/vllm-openai:v0.32.0

# Weights are kept in a volume that is mounted here.
ENV HF_HOME=/models
EXPOSE 8000
HEALTHCHECK --interval=10s --start-period=15m \
    CMD python3 -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=5)"
