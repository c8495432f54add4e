// A client of the drill that is written with the JavaScript client, on Node and in a tab alike: wishes come in, and what
// happens is told in its order. The drill judges.

/** `connect` is the client's own; `say` takes an event to the drill. */
export function attend(connect, say) {
  let client;

  function begin({ urls: [url, ...or], token, rooms }) {
    client = connect(url, { token: token ?? undefined, or });
    const told = ({ type, ...rest }) => say({ event: type, ...rest });
    client.on("connected", ({ welcome: { instance, epoch } }) => say({ event: "connected", instance, epoch }));
    for (const type of ["drain", "bye", "closed", "error", "ended"]) client.on(type, told);
    for (const name of rooms) {
      const room = client.room(name);
      for (const type of ["subscribed", "resumed", "skipped", "unsubscribed", "gap"]) room.on(type, told);
      // As text: what is judged is what came, byte for byte, and this is how all of it was written.
      room.on("message", ({ room, seq, from, key, data }) =>
        say({ event: "message", room, seq, from, key, data: JSON.stringify(data) }));
    }
  }

  function publish({ n, room, key, data }) {
    client.publish(room, JSON.parse(data), { key: key ?? undefined }).then(
      ({ seq }) => say({ event: "answer", n, seq }),
      error => say({ event: "answer", n, code: error.code ?? String(error) }),
    );
  }

  return {
    wish(wish) {
      if (wish.begin) begin(wish.begin);
      else if (wish.publish) publish(wish.publish);
    },
    close() { client?.close(); },
  };
}
