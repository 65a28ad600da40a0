"""An agent of the openai-agents library with one tool. Usage: agents_sdk.py BASE-URL PROMPT"""

import asyncio
import sys

import agents
import openai


@agents.function_tool
def look(what: str) -> str:
    """Looks at something."""
    return f"looked at {what}"


async def main(base_url, prompt):
    agents.set_tracing_disabled(True)
    agents.set_default_openai_client(openai.AsyncOpenAI(base_url=base_url, max_retries=0))
    agent = agents.Agent(name="reader", model="gpt-5", tools=[look])
    running = agents.Runner.run_streamed(agent, prompt)
    async for _ in running.stream_events():
        pass
    print(running.final_output)


asyncio.run(main(*sys.argv[1:]))
