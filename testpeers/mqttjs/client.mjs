// SPDX-License-Identifier: AGPL-3.0-only

// MQTT.js as a program: it reads orders from its input and writes what the server answered, a JSON object a line.
// Package testpeers says what the lines mean.
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import mqtt from 'mqtt'

const { values: flags } = parseArgs({
  options: Object.fromEntries(['version', 'addr', 'ca', 'cert', 'key'].map(name => [name, { type: 'string' }])),
})
const version = Number(flags.version)
const say = event => process.stdout.write(JSON.stringify(event) + '\n')

// texts are the properties that are there, as texts under short names.
function texts(properties = {}, names) {
  const out = {}
  for (const [short, name] of Object.entries(names)) {
    if (properties[name] !== undefined) out[short] = String(properties[name])
  }
  return out
}

// received says what the server sent, before the client does anything about it.
function received(p) {
  const words = p.properties?.reasonString
  switch (p.cmd) {
    case 'connack':
      return say({
        is: 'connack', code: version === 5 ? p.reasonCode : p.returnCode, present: p.sessionPresent, words,
        props: texts(p.properties, {
          expiry: 'sessionExpiryInterval', keepalive: 'serverKeepAlive', receive: 'receiveMaximum', aliases: 'topicAliasMaximum',
          qos: 'maximumQoS', id: 'assignedClientIdentifier', info: 'responseInformation', server: 'serverReference',
        }),
      })
    case 'suback': return say({ is: 'suback', codes: p.granted.map(Number), words })
    case 'unsuback': return say({ is: 'unsuback', codes: (p.granted ?? []).map(Number) })
    case 'puback': return say({ is: 'puback', code: p.reasonCode ?? 0, words })
    case 'disconnect':
      ended = true
      return say({ is: 'end', code: p.reasonCode, words, props: texts(p.properties, { server: 'serverReference' }) })
    case 'publish':
      return say({
        is: 'message', topic: p.topic.toString(), payload: p.payload.toString(), qos: p.qos, dup: p.dup,
        props: texts(p.properties, { response: 'responseTopic', correlation: 'correlationData', type: 'contentType', expiry: 'messageExpiryInterval', alias: 'topicAlias' }),
      })
  }
}

let client, ended, held

function connect(o) {
  const properties = {}
  const set = (name, value) => { if (value) properties[name] = value }
  set('sessionExpiryInterval', o.expiry)
  set('receiveMaximum', o.receive)
  set('topicAliasMaximum', o.aliases)
  set('maximumPacketSize', o.size)
  set('requestResponseInformation', o.info)
  set('authenticationMethod', o.auth)
  if (o.terse) properties.requestProblemInformation = false
  const [host, port] = flags.addr.split(':')
  ended = false
  held = []
  client = mqtt.connect({
    protocol: 'mqtts', host, port: Number(port), servername: 'localhost', protocolVersion: version,
    ca: readFileSync(flags.ca), cert: readFileSync(flags.cert), key: readFileSync(flags.key),
    clientId: o.id, clean: Boolean(o.clean), keepalive: o.keepalive, reconnectPeriod: 0, resubscribe: false, properties,
    will: o.will && { topic: o.will.topic, payload: o.will.payload, qos: o.will.qos, retain: o.will.retain, properties: { willDelayInterval: o.will.delay } },
  })
  client.handleMessage = (packet, done) => { o.hold && packet.qos > 0 ? held.push(done) : done() }
  client.on('packetreceive', received)
  client.on('error', () => {}) // what the server said is said already
  client.on('close', () => { if (!ended) say({ is: 'end', words: 'closed' }) })
}

function publish(o) {
  const properties = {}
  if (o.alias) properties.topicAlias = o.alias
  if (o.expiry) properties.messageExpiryInterval = o.expiry
  if (o.type) properties.contentType = o.type
  if (o.text) properties.payloadFormatIndicator = true
  if (o.user) properties.userProperties = o.user
  client.publish(o.topic ?? '', o.raw ? Buffer.from(o.raw, 'base64') : o.payload ?? '', { qos: o.qos, retain: o.retain, properties }, err => {
    if (err && err.code === undefined && !ended) say({ is: 'error', words: err.message })
  })
}

const orders = {
  connect,
  publish,
  subscribe: o => client.subscribe(o.topics, { qos: o.qos }, () => {}),
  unsubscribe: o => client.unsubscribe(o.topics, () => {}),
  ack: () => held.shift()(),
  disconnect: o => { ended = true; client.end(false, { reasonCode: o.code, properties: o.expiry ? { sessionExpiryInterval: o.expiry } : undefined }) },
  drop: () => { ended = true; client.stream.destroy() },
}

for await (const line of createInterface({ input: process.stdin })) {
  const o = JSON.parse(line)
  try {
    orders[o.do](o)
  } catch (err) {
    say({ is: 'error', words: err.message })
  }
}
process.exit()
