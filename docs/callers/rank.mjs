// node docs/callers/rank.mjs ADDRESS USER ITEM…   (npm install @grpc/grpc-js @grpc/proto-loader)
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const proto = loader.loadSync(fileURLToPath(new URL("kserve.proto", import.meta.url)));
const { GRPCInferenceService } = grpc.loadPackageDefinition(proto).inference;
const [address, user, ...items] = process.argv.slice(2);
const client = new GRPCInferenceService(address, grpc.credentials.createInsecure());

const text = (name, values) => ({
  name,
  datatype: "BYTES",
  shape: [1, values.length],
  contents: { bytesContents: values.map((each) => Buffer.from(each)) },
});
const request = {
  modelName: "rank_clicks",
  inputs: [text("user_id", [user]), text("item_ids", items)],
};
client.ModelInfer(request, { deadline: Date.now() + 1000 }, (error, answer) => {
  if (error) throw error;
  const raw = (name) =>
    answer.rawOutputContents[answer.outputs.findIndex((each) => each.name === name)];
  const note = (name) => raw(name).subarray(4).toString(); // after the length, 4 bytes
  const scores = items.map((item, place) => [
    item,
    raw("click_probability").readFloatLE(4 * place),
  ]);
  console.log(note("model_version"), note("status"), Object.fromEntries(scores));
  client.close();
});
