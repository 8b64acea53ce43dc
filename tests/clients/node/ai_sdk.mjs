// Vercel AI SDK: its providers, whole and streamed; the SDK runs the tools. Usage: node ai_sdk.mjs PROVIDER

import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, stepCountIs, streamText, tool } from 'ai'
import { z } from 'zod'

import { API, API_KEY, BASE_URL, MODEL, STREAM, TASKS, finish, functions } from './tools.mjs'

const model = {
  openai: () => createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY })[API](MODEL),
  // Without a store behind it the SDK sends every item itself instead of a reference to it.
  'openai-unstored': () => createOpenAI({ baseURL: BASE_URL, apiKey: API_KEY })[API](MODEL),
  'openai-compatible': () => createOpenAICompatible({ name: 'proxy', baseURL: BASE_URL, apiKey: API_KEY })(MODEL),
  anthropic: () => createAnthropic({ baseURL: `${BASE_URL}/v1`, apiKey: API_KEY })(MODEL),
}[process.argv[2]]()
const providerOptions = process.argv[2] === 'openai-unstored' ? { openai: { store: false } } : {}

const schemas = {
  count_letters: z.object({ text: z.string() }),
  sum_to: z.object({ n: z.number().int() }),
  factorial: z.object({ n: z.number().int() }),
}
const tools = Object.fromEntries(
  Object.entries(schemas).map(([name, inputSchema]) => [name, tool({ inputSchema, execute: functions[name] })]),
)

const messages = []
const ids = []
const texts = []
for (const task of TASKS) {
  messages.push({ role: 'user', content: task })
  const request = { model, tools, messages, providerOptions, stopWhen: stepCountIs(8) }
  const result = STREAM ? streamText(request) : await generateText(request)
  const steps = await result.steps
  ids.push(...steps.flatMap((step) => step.toolCalls).map((call) => call.toolCallId))
  texts.push(await result.text)
  messages.push(...(await result.response).messages)
}
finish(texts, ids)
