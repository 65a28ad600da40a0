"""An agent of the openai-agents library with one tool. Usage: agents_sdk.py PROMPT, with OPENAI_BASE_URL"""

import asyncio
import sys

import agents
import openai


@agents.function_tool
def look(what: str) -> str:
    """Looks at something."""
    return f"looked at {what}"


async def main(prompt):
    agents.set_tracing_disabled(True)
    agents.set_default_openai_client(openai.AsyncOpenAI(max_retries=0))
    agent = agents.Agent(name="reader", model="gpt-5", tools=[look])
    running = agents.Runner.run_streamed(agent, prompt)
    async for _ in running.stream_events():
        pass
    print(running.final_output)


asyncio.run(main(*sys.argv[1:]))
