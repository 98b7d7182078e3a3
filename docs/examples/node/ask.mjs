import { readFileSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { Kafka, logLevel } from "kafkajs";

const STANDS = new Set(["completed", "refused", "withheld", "unknown"]); // after any other outcome it is new work
const request = JSON.parse(readFileSync(process.argv[2], "utf8"));
const kafka = new Kafka({ brokers: [process.env.KAFKA ?? "127.0.0.1:9092"], logLevel: logLevel.ERROR });
const topic = "ai.responses";
const groupId = `ask-${randomUUID()}`; // a group of its own: in a shared one another program would get the answer
const admin = kafka.admin();
const producer = kafka.producer();
const consumer = kafka.consumer({ groupId, readUncommitted: false });
await Promise.all([admin.connect(), producer.connect(), consumer.connect()]);

async function ask(timeoutMs = 120_000) {
  const places = await admin.fetchTopicOffsets(topic); // where the answers end before the request is sent
  let wanted = request.requestId;
  let sentBefore = false;
  let answered;
  const answer = new Promise((resolve, reject) => {
    answered = resolve;
    setTimeout(() => reject(new Error(`no answer in ${timeoutMs / 1000} s`)), timeoutMs).unref();
  });
  await consumer.subscribe({ topic });
  await consumer.run({
    autoCommit: false,
    eachMessage: async ({ message }) => {
      if (message.key?.toString() !== wanted) return;
      const response = JSON.parse(message.value);
      if (STANDS.has(response.outcome) || !(sentBefore || response.outcome === "duplicate")) {
        answered(response);
      } else if (response.outcome === "duplicate" && !sentBefore) { // its answer is the first one's
        [wanted, sentBefore] = [response.duplicateOf, true];
        places.forEach(({ partition, low }) => consumer.seek({ topic, partition, offset: low }));
      }
    },
  });
  places.forEach(({ partition, high }) => consumer.seek({ topic, partition, offset: high }));
  await producer.send({
    topic: "ai.requests",
    acks: -1,
    messages: [{
      key: request.requestId,
      value: JSON.stringify(request),
      headers: {
        "content-type": "application/json", "ce_specversion": "1.0", "ce_type": "io.waybill.request.v1",
        "ce_id": request.requestId, "ce_source": "/shop",
      },
    }],
  });
  return answer;
}

try {
  const response = await ask();
  if (response.outcome === "completed") {
    console.log(response.output.text);
  } else { // unknown: a hosted model may have been asked; decide yourself whether to ask again, under a new requestId
    console.error(`${response.outcome}: ${response.failure.code}: ${response.failure.message}`);
    process.exitCode = 1;
  }
} finally {
  await consumer.disconnect();
  await admin.deleteGroups([groupId]);
  await Promise.all([admin.disconnect(), producer.disconnect()]);
}
