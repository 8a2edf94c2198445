// The same relay on Node's `ws`: node relay.js PORT ws://VAPI
const { WebSocketServer, WebSocket } = require("ws");
const [port, vapiUrl] = process.argv.slice(2);
const MARK_EVERY = 1600; // bytes

new WebSocketServer({ port: Number(port), host: "127.0.0.1", perMessageDeflate: false }).on("connection", (twilio) => {
  let stream = "", vapi = null, sent = 0, marked = 0;
  const say = (message) => twilio.readyState === WebSocket.OPEN && twilio.send(JSON.stringify({ streamSid: stream, ...message }));
  const hear = (data, isBinary) => {
    if (isBinary) {
      say({ event: "media", media: { payload: data.toString("base64") } });
      sent += data.length;
      if (sent - marked >= MARK_EVERY) {
        marked = sent;
        say({ event: "mark", mark: { name: String(sent) } });
      }
    } else if (JSON.parse(data).type === "user-interrupted") say({ event: "clear" });
  };
  twilio.on("message", (text) => {
    const message = JSON.parse(text);
    if (message.event === "media") {
      if (vapi && vapi.readyState === WebSocket.OPEN) vapi.send(Buffer.from(message.media.payload, "base64"));
    } else if (message.event === "start") {
      stream = message.start.streamSid;
      vapi = new WebSocket(`${vapiUrl}/${message.start.callSid}`, { perMessageDeflate: false });
      vapi.on("message", hear);
      vapi.on("error", () => twilio.close());
    } else if (message.event === "stop") twilio.close(1000);
  });
  twilio.on("close", () => vapi && vapi.close());
});
