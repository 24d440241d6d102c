// Reads tracks and users with node-redis: npx tsc && node reader.js localhost:6379 track:t1 user:ana
import { createClient, RESP_TYPES } from "redis";

function vector(value: Buffer): number[] {
  return Array.from({ length: value.length / 4 }, (_, i) => value.readFloatLE(4 * i));
}

const [address, ...asked] = process.argv.slice(2);
const client = createClient({ url: `redis://${address}`, disableClientInfo: true });
await client.connect();
const inBytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });

const release = await client.hGet("tw:live", "release"); // keep it for a second at most
const replies = await Promise.all(
  asked.map((one) => {
    const [kind, ...id] = one.split(":");
    return inBytes.hGetAll(`tw:${release}:${kind}:{${id.join(":")}}`); // sent together, in one write
  }),
);
replies.forEach((fields, i) => {
  const answer: Record<string, unknown> = { asked: asked[i], known: Object.keys(fields).length > 0 };
  for (const name of ["status", "genre", "source"]) {
    if (fields[name]) answer[name] = fields[name].toString();
  }
  if (fields.confidence) answer.confidence = Number(fields.confidence.toString());
  if (fields.embedding) answer.embedding = vector(fields.embedding);
  console.log(JSON.stringify(answer));
});
await client.close();
