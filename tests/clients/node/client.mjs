// A client made from the contract's descriptors alone: node client.mjs HOST:PORT CONTRACT.BINPB < {"key": ..., "closes": [...]}
import { readFileSync } from "node:fs";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const [target, contract] = process.argv.slice(2);
const definition = loader.loadFileDescriptorSetFromBuffer(readFileSync(contract), { defaults: true });
const { MarketInferenceService } = grpc.loadPackageDefinition(definition).market.inference.v1;
const { key, closes } = JSON.parse(readFileSync(0, "utf8"));
const client = new MarketInferenceService(target, grpc.credentials.createInsecure());
const metadata = new grpc.Metadata();
metadata.set("authorization", `Bearer ${key}`);

const predict = (request) =>
  new Promise((resolve, reject) =>
    client.predict(request, metadata, { deadline: Date.now() + 20_000 }, (error, answer) =>
      error ? reject(error) : resolve(answer),
    ),
  );

const answer = await predict({ series: [{ values: closes }], horizon: 2, quantiles: [0.1, 0.9] });
const refused = await predict({ series: [{ values: closes }], horizon: 0 }).catch((error) => error);
process.stdout.write(
  JSON.stringify({
    quantiles: answer.forecasts[0].forecast.quantiles,
    error: { code: refused.code, field: refused.details.split(":")[0] },
  }),
);
client.close();
