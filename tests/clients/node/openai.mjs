// openai-node: chat completions and responses, whole and streamed, with the library's own stream helpers.

import OpenAI from 'openai'

import { API, API_KEY, BASE_URL, MODEL, STREAM, TASKS, finish, functions } from './tools.mjs'

const client = new OpenAI({ baseURL: BASE_URL, apiKey: API_KEY })
const history = []
const ids = []

const integer = { n: { type: 'integer' } }
const properties = { count_letters: { text: { type: 'string' } }, sum_to: integer, factorial: integer }
const schemas = Object.entries(properties).map(([name, fields]) => ({
  name,
  parameters: { type: 'object', properties: fields, required: Object.keys(fields), additionalProperties: false },
  strict: true,
}))

async function chat(task) {
  const tools = schemas.map((schema) => ({ type: 'function', function: schema }))
  history.push({ role: 'user', content: task })
  for (;;) {
    const request = { model: MODEL, messages: history, tools }
    const completion = STREAM
      ? await client.chat.completions.stream(request).finalChatCompletion()
      : await client.chat.completions.create(request)
    const { message } = completion.choices[0]
    history.push(message)
    if (!message.tool_calls?.length) return message.content
    for (const call of message.tool_calls) {
      ids.push(call.id)
      const content = functions[call.function.name](JSON.parse(call.function.arguments))
      history.push({ role: 'tool', tool_call_id: call.id, content })
    }
  }
}

async function responses(task) {
  const tools = schemas.map((schema) => ({ type: 'function', ...schema }))
  history.push({ role: 'user', content: task })
  for (;;) {
    const request = { model: MODEL, input: history, tools }
    const response = STREAM
      ? await client.responses.stream(request).finalResponse()
      : await client.responses.create(request)
    history.push(...response.output)
    const calls = response.output.filter((item) => item.type === 'function_call')
    if (!calls.length) return response.output_text
    for (const call of calls) {
      ids.push(call.call_id)
      const output = functions[call.name](JSON.parse(call.arguments))
      history.push({ type: 'function_call_output', call_id: call.call_id, output })
    }
  }
}

const ask = { chat, responses }[API]
const texts = []
for (const task of TASKS) texts.push(await ask(task))
finish(texts, ids)
