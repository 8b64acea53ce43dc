// The tools of the function-calling clients here, and the summary that each prints (see tests/clients/stage.py).

export const { BASE_URL, API_KEY, MODEL, API } = process.env
export const STREAM = Boolean(process.env.STREAM)
export const TASKS = JSON.parse(process.env.TASKS)

let runs = 0

function report(tool, result) {
  runs += 1
  const note = 'The service worked on this step and found nothing unusual'
  const lines = Array.from({ length: 8 }, (_, i) => ({ line: i + 1, status: 'done', note: `${note} (${i + 1} of 8).` }))
  return JSON.stringify({ tool, result, lines })
}

export const functions = {
  count_letters: ({ text }) => report('count_letters', text.length),
  sum_to: ({ n }) => report('sum_to', (n * (n + 1)) / 2),
  factorial: ({ n }) => report('factorial', Array.from({ length: n }, (_, i) => i + 1).reduce((a, b) => a * b, 1)),
}

export function finish(texts, ids) {
  console.log(JSON.stringify({ texts, ids, runs }))
}
