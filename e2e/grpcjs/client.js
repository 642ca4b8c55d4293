'use strict';
// Calls the health service of the target without end, and prints a line about each call: which address answered, or the
// error. It knows xDS and nothing of Entente. It ends with its standard input.
const grpc = require('@grpc/grpc-js');
const xds = require('@grpc/grpc-js-xds');

xds.register();
process.stdin.on('data', () => {});
process.stdin.on('end', () => process.exit(0));

const asIs = (bytes) => bytes;
const Health = grpc.makeGenericClientConstructor({
  check: {
    path: '/grpc.health.v1.Health/Check',
    requestStream: false,
    responseStream: false,
    requestSerialize: asIs,
    requestDeserialize: asIs,
    responseSerialize: asIs,
    responseDeserialize: asIs,
  },
}, 'Health');

const credentials = new xds.XdsChannelCredentials(grpc.credentials.createInsecure());
const client = new Health(process.argv[2], credentials);

function call() {
  const started = client.check(Buffer.alloc(0), { deadline: Date.now() + 20000 }, (error) => {
    if (error) {
      console.log(`error ${error.message.replace(/\s+/g, ' ')}`);
    } else {
      console.log(`ok ${started.getPeer()} node`);
    }
    setTimeout(call, 5);
  });
}
call();
