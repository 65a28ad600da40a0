// The JDK's HttpClient with its defaults: it offers HTTP/2 with the first request on each connection, and so do
// langchain4j and Spring. cases.py documents the cases.
//
// Usage: java JdkHttpClient.java SCENE (JSON; see ../table.py)

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.FileInputStream;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.net.http.WebSocket;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.zip.GZIPInputStream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class JdkHttpClient {
    static final int EVENTS = 5;
    static final int TOGETHER = 50;
    static final int FRAME_BYTES = 8 << 20;
    static final Duration SECONDS_MAX = Duration.ofSeconds(90);
    static final String PATH = "/v1/any?x=1&y=two&empty=";

    interface Case {
        void run(String name) throws Exception;
    }

    final String scene;
    final String through;
    final String target;
    final int length;
    final HttpClient client = HttpClient.newHttpClient();
    // A separate client for requests directly to the target.
    final HttpClient direct;

    JdkHttpClient(String scene) throws Exception {
        this.scene = scene;
        through = text(scene, "through");
        target = text(scene, "target");
        length = Integer.parseInt(number(scene, "bytes"));
        HttpClient.Builder builder = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1);
        direct = target.startsWith("https") ? builder.sslContext(trusting(text(scene, "ca"))).build() : builder.build();
    }

    public static void main(String[] arguments) throws Exception {
        JdkHttpClient subject = new JdkHttpClient(arguments[0]);
        Map<String, Case> rows = subject.rows();
        String cases = find(arguments[0], "\"cases\": \\[([^]]*)\\]");
        for (String name : cases.replaceAll("^\"|\"$", "").split("\", \"")) {
            long started = System.nanoTime();
            String cell = "ok";
            String why = "";
            if (!rows.containsKey(name)) {
                cell = "n.a.";
                why = "the client does not support it";
            } else {
                try {
                    rows.get(name).run("jdk-" + name.replace(' ', '-'));
                } catch (Throwable error) {
                    cell = "FAILED";
                    StringWriter trace = new StringWriter();
                    error.printStackTrace(new PrintWriter(trace));
                    why = trace.toString();
                }
            }
            double seconds = (System.nanoTime() - started) / 1e9;
            String format = "{\"case\": %s, \"cell\": %s, \"why\": %s, \"seconds\": %.3f}%n";
            System.out.printf(Locale.ROOT, format, quoted(name), quoted(cell), quoted(why), seconds);
        }
        System.exit(0);
    }

    Map<String, Case> rows() {
        Map<String, Case> rows = new LinkedHashMap<>();
        rows.put("plain", this::plain);
        rows.put("events", this::events);
        rows.put("upload", this::upload);
        rows.put("chunked", this::chunked);
        rows.put("download", this::download);
        rows.put("refused", this::refused);
        rows.put("leaves early", this::leavesEarly);
        rows.put("leaves midway", this::leavesMidway);
        rows.put("idle", this::idle);
        rows.put("slow", this::slow);
        rows.put("errors", this::errors);
        rows.put("gzip", this::packed);
        rows.put("head", this::head);
        rows.put("together", this::together);
        rows.put("identity", this::identity);
        rows.put("100-continue", this::awaits100);
        rows.put("h2c", this::offersHttp2);
        rows.put("websocket", this::websocket);
        return rows;
    }

    HttpRequest.Builder request(String name, String want) {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(through + PATH)).timeout(SECONDS_MAX);
        return request.setHeader("x-case", name).setHeader("x-want", want);
    }

    HttpResponse<byte[]> send(HttpRequest.Builder request) throws Exception {
        return client.send(request.build(), BodyHandlers.ofByteArray());
    }

    void plain(String name) throws Exception {
        byte[] body = "{\"model\": \"m\", \"messages\": []}".getBytes();
        String told = told(send(request(name, "").header("Content-Type", "application/json").POST(bytes(body))));
        equal("POST", text(told, "method"));
        equal(PATH, text(told, "target"));
        equal(sha256(body), text(told, "sha256"));
    }

    void events(String name) throws Exception {
        HttpResponse<InputStream> answer = open(name);
        BufferedReader lines = new BufferedReader(new InputStreamReader(answer.body()));
        for (int index = 0; index < EVENTS; index++) {
            equal(String.valueOf(index), number(nextEvent(lines), "index"));
            // The target sends the next event only now, so a buffered event would never arrive.
            if (index < EVENTS - 1) {
                control("next", name);
            }
        }
        equal("[DONE]", nextEvent(lines));
        ended(name, "done");
    }

    HttpResponse<InputStream> open(String name) throws Exception {
        return client.send(request(name, "events=" + EVENTS).build(), BodyHandlers.ofInputStream());
    }

    String nextEvent(BufferedReader lines) throws Exception {
        for (String line; (line = lines.readLine()) != null; ) {
            if (line.startsWith("data: ")) {
                return line.substring(6);
            }
        }
        throw new AssertionError("the stream ended too early");
    }

    void upload(String name) throws Exception {
        byte[] body = noise(length);
        equal(sha256(body), text(told(send(request(name, "").POST(bytes(body)))), "sha256"));
    }

    void chunked(String name) throws Exception {
        byte[] body = noise(1 << 20);
        BodyPublisher unknown = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body));
        equal(sha256(body), text(told(send(request(name, "").POST(unknown))), "sha256"));
        equal(List.of("chunked"), field(seen(name), "transfer-encoding"));
    }

    void download(String name) throws Exception {
        HttpResponse<byte[]> answer = send(request(name, "download=" + length));
        equal(length, answer.body().length);
        ended(name, "done");
        equal(text(seen(name), "sent_sha256"), sha256(answer.body()));
    }

    void refused(String name) throws Exception {
        HttpResponse<byte[]> answer = send(request(name, "refuse").POST(bytes(noise(length))));
        equal(413, answer.statusCode());
        equal("too large", text(new String(answer.body()), "message"));
    }

    void leavesEarly(String name) throws Exception {
        CompletableFuture<?> asked = client.sendAsync(request(name, "hold").build(), BodyHandlers.ofByteArray());
        seen(name);
        asked.cancel(true);
        equal(true, asked.isCompletedExceptionally());
        ended(name, "gone");
    }

    void leavesMidway(String name) throws Exception {
        InputStream body = open(name).body();
        equal("0", number(nextEvent(new BufferedReader(new InputStreamReader(body))), "index"));
        body.close();
        ended(name, "gone");
    }

    void idle(String name) throws Exception {
        told(send(request(name + "-0", "").POST(bytes("{}".getBytes()))));
        // The case needs this pause: no event ends it earlier.
        Thread.sleep(Math.round(1000 * Double.parseDouble(number(scene, "idle_seconds"))));
        told(send(request(name + "-1", "").POST(bytes("{}".getBytes()))));
    }

    void slow(String name) throws Exception {
        told(send(request(name, "slow=" + number(scene, "slow_seconds"))));
    }

    void errors(String name) throws Exception {
        for (int status : new int[] {401, 429, 500}) {
            HttpResponse<byte[]> answer = send(request(name + "-" + status, "status=" + status));
            equal(status, answer.statusCode());
            equal(text(seen(name + "-" + status), "sent_sha256"), sha256(answer.body()));
            equal(List.of("7"), answer.headers().allValues("retry-after"));
            equal(List.of(), answer.headers().allValues("x-ic-error"));
            equal(status == 401, answer.headers().firstValue("www-authenticate").isPresent());
        }
    }

    // HttpClient does not decompress, so these are the received bytes.
    void packed(String name) throws Exception {
        HttpResponse<byte[]> answer = send(request(name, "gzip").header("Accept-Encoding", "gzip"));
        equal(List.of("gzip"), answer.headers().allValues("content-encoding"));
        byte[] unpacked = new GZIPInputStream(new ByteArrayInputStream(answer.body())).readAllBytes();
        equal("GET", text(new String(unpacked), "method"));
    }

    void head(String name) throws Exception {
        HttpResponse<byte[]> answer = send(request(name, "").method("HEAD", BodyPublishers.noBody()));
        equal(200, answer.statusCode());
        equal(0, answer.body().length);
        equal(true, answer.headers().firstValueAsLong("content-length").getAsLong() > 50);
        // The next request on the same connection shows that all sides agree that there was no body.
        told(send(request(name + "-after", "")));
    }

    void together(String name) throws Exception {
        List<CompletableFuture<HttpResponse<byte[]>>> asked = new ArrayList<>();
        for (int number = 0; number < TOGETHER; number++) {
            HttpRequest.Builder request = request(name + "-" + number, "together=" + TOGETHER);
            HttpRequest built = request.POST(bytes(body(number))).build();
            asked.add(client.sendAsync(built, BodyHandlers.ofByteArray()));
        }
        for (int number = 0; number < TOGETHER; number++) {
            equal(sha256(body(number)), text(told(asked.get(number).get()), "sha256"));
        }
    }

    static byte[] body(int number) {
        return ("{\"n\": " + number + "}").getBytes();
    }

    void identity(String name) throws Exception {
        HttpRequest.Builder request = request(name, "").header("x-memory-user-id", "somebody-else");
        told(send(request.header("X-Source", "elsewhere").header("x-of-the-client", "kept, as it is")));
        String seen = seen(name);
        equal(List.of(text(scene, "instance")), field(seen, "x-memory-user-id"));
        equal(List.of(text(scene, "instance")), field(seen, "x-pycharm-instance"));
        equal(List.of("pycharm-ai-chat"), field(seen, "x-source"));
        equal(List.of("kept, as it is"), field(seen, "x-of-the-client"));
        equal(List.of(target.split("//")[1]), field(seen, "host"));
    }

    void awaits100(String name) throws Exception {
        byte[] body = "asked first".getBytes();
        equal(sha256(body), text(told(send(request(name, "").expectContinue(true).POST(bytes(body)))), "sha256"));
        equal(List.of("100-Continue"), field(seen(name), "expect"));
    }

    // A new connection, so that this request offers the upgrade. The target must receive the body without the offer:
    // servers with partial support drop the body, or hang.
    void offersHttp2(String name) throws Exception {
        byte[] body = "{\"upgrade\": false}".getBytes();
        HttpClient fresh = HttpClient.newHttpClient();
        HttpRequest request = request(name, "").POST(bytes(body)).build();
        HttpResponse<byte[]> answer = fresh.send(request, BodyHandlers.ofByteArray());
        equal(sha256(body), text(told(answer), "sha256"));
        equal(HttpClient.Version.HTTP_1_1, answer.version());
        equal(List.of(), field(seen(name), "upgrade"));
        equal(List.of(), field(seen(name), "http2-settings"));
    }

    void websocket(String name) throws Exception {
        Messages messages = new Messages();
        URI uri = URI.create(through.replace("http", "ws") + "/v1/realtime?model=m");
        WebSocket.Builder builder = client.newWebSocketBuilder().subprotocols("chat.v1", "chat.v2");
        WebSocket socket = builder.header("x-case", name).buildAsync(uri, messages).get(90, TimeUnit.SECONDS);
        equal("chat.v2", socket.getSubprotocol());
        socket.sendText("text, and \u00e4\u00f6", true).join();
        equal("text, and \u00e4\u00f6", messages.next());
        byte[] frame = noise(FRAME_BYTES);
        socket.sendBinary(ByteBuffer.wrap(frame), true).join();
        equal(sha256(frame), messages.next());
        socket.sendText("close 4001", true).join();
        equal("4001 as asked", messages.next());
    }

    // Received messages: a text unchanged, bytes as their checksum, the close as its code and reason.
    static class Messages implements WebSocket.Listener {
        private final BlockingQueue<String> whole = new LinkedBlockingQueue<>();
        private final StringBuilder text = new StringBuilder();
        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

        String next() throws Exception {
            return whole.poll(90, TimeUnit.SECONDS);
        }

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            text.append(data);
            if (last) {
                whole.add(text.toString());
                text.setLength(0);
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onBinary(WebSocket socket, ByteBuffer data, boolean last) {
            byte[] piece = new byte[data.remaining()];
            data.get(piece);
            bytes.writeBytes(piece);
            if (last) {
                whole.add(sha256(bytes.toByteArray()));
                bytes.reset();
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            whole.add(code + " " + reason);
            return null;
        }

        @Override
        public void onError(WebSocket socket, Throwable error) {
            whole.add(error.toString());
        }
    }

    // Sends a request directly to the target.
    String control(String what, String name) throws Exception {
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(target + "/" + what + "?case=" + name));
        request.method(what.equals("next") ? "POST" : "GET", BodyPublishers.noBody());
        return direct.send(request.build(), BodyHandlers.ofString()).body();
    }

    String seen(String name) throws Exception {
        return until(name, "\"fields\"");
    }

    void ended(String name, String how) throws Exception {
        until(name, "\"ended\": ?\"" + how + "\"");
    }

    // The target's record of a request, when it contains `sign`.
    String until(String name, String sign) throws Exception {
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(15);
        String record = "";
        while (System.nanoTime() < deadline) {
            record = control("seen", name);
            if (Pattern.compile(sign).matcher(record).find()) {
                return record;
            }
            Thread.sleep(20);
        }
        throw new AssertionError("not within 15 s: " + sign + " in " + record);
    }

    static SSLContext trusting(String file) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (InputStream pem = new FileInputStream(file)) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(pem));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }

    static BodyPublisher bytes(byte[] body) {
        return BodyPublishers.ofByteArray(body);
    }

    static String told(HttpResponse<byte[]> answer) {
        equal(200, answer.statusCode());
        return new String(answer.body(), StandardCharsets.UTF_8);
    }

    static void equal(Object expected, Object actual) {
        if (!expected.equals(actual)) {
            throw new AssertionError("expected " + expected + ", not " + actual);
        }
    }

    // The JDK has no JSON parser. These suffice for the flat documents of the target and the table.
    static String text(String json, String name) {
        return find(json, "\"" + name + "\": ?\"([^\"]*)\"");
    }

    static String number(String json, String name) {
        return find(json, "\"" + name + "\": ?([0-9.]+)");
    }

    static String find(String json, String pattern) {
        Matcher matcher = Pattern.compile(pattern).matcher(json);
        if (!matcher.find()) {
            throw new AssertionError("no " + pattern + " in " + json);
        }
        return matcher.group(1);
    }

    static List<String> field(String seen, String name) {
        List<String> values = new ArrayList<>();
        Matcher matcher = Pattern.compile("\\[\"" + name + "\", ?\"([^\"]*)\"\\]").matcher(seen);
        while (matcher.find()) {
            values.add(matcher.group(1));
        }
        return values;
    }

    static String quoted(String text) {
        String escaped = text.replace("\\", "\\\\").replace("\"", "\\\"");
        return "\"" + escaped.replace("\n", "\\n").replace("\t", "  ").replace("\r", "") + "\"";
    }

    // Bytes without repetition.
    static byte[] noise(int length) {
        ByteBuffer whole = ByteBuffer.allocate(length);
        for (int index = 0; whole.remaining() >= 4; index++) {
            whole.putInt(index * 0x9E3779B1);
        }
        return whole.array();
    }

    static String sha256(byte[] data) {
        try {
            return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
        } catch (NoSuchAlgorithmException error) {
            throw new AssertionError(error);
        }
    }
}
