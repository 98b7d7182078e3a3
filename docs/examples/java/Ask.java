import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

public class Ask {
    static final String KAFKA = System.getenv().getOrDefault("KAFKA", "127.0.0.1:9092");
    static final Set<String> STANDS = Set.of("completed", "refused", "withheld", "unknown"); // else it is new work
    static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        JsonNode response = ask(JSON.readTree(Files.readString(Path.of(arguments[0]))), Duration.ofSeconds(120));
        String outcome = response.get("outcome").asText();
        if (outcome.equals("completed")) {
            System.out.println(response.get("output").get("text").asText());
            return;
        }
        // unknown: a hosted model may have been asked; decide yourself whether to ask again, under a new requestId
        JsonNode failure = response.get("failure");
        System.err.println(outcome + ": " + failure.get("code").asText() + ": " + failure.get("message").asText());
        System.exit(1);
    }

    static JsonNode ask(JsonNode request, Duration timeout) throws Exception {
        String requestId = request.get("requestId").asText();
        ProducerRecord<String, String> record = new ProducerRecord<>("ai.requests", requestId, request.toString());
        Map.of("content-type", "application/json", "ce_specversion", "1.0", "ce_type", "io.waybill.request.v1",
               "ce_id", requestId, "ce_source", "/shop")
            .forEach((name, value) -> record.headers().add(name, value.getBytes()));
        Map<String, Object> reading = Map.of("bootstrap.servers", KAFKA, "isolation.level", "read_committed",
                                             "enable.auto.commit", false);
        Map<String, Object> writing = Map.of("bootstrap.servers", KAFKA, "acks", "all");
        try (var responses = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer());
             var producer = new KafkaProducer<>(writing, new StringSerializer(), new StringSerializer())) {
            List<TopicPartition> places = responses.partitionsFor("ai.responses").stream()
                .map(each -> new TopicPartition(each.topic(), each.partition())).toList();
            responses.assign(places);
            responses.seekToEnd(places);
            places.forEach(responses::position); // know where to read from before the request is sent
            producer.send(record).get();

            String wanted = requestId;
            boolean sentBefore = false;
            Instant end = Instant.now().plus(timeout);
            while (Instant.now().isBefore(end)) {
                for (ConsumerRecord<String, String> found : responses.poll(Duration.ofMillis(200))) {
                    if (!wanted.equals(found.key())) {
                        continue;
                    }
                    JsonNode response = JSON.readTree(found.value());
                    String outcome = response.get("outcome").asText();
                    if (STANDS.contains(outcome) || !(sentBefore || outcome.equals("duplicate"))) {
                        return response;
                    }
                    if (outcome.equals("duplicate") && !sentBefore) { // its answer is the first one's
                        wanted = response.get("duplicateOf").asText();
                        sentBefore = true;
                        responses.seekToBeginning(places);
                    }
                }
            }
        }
        throw new IllegalStateException("no answer in " + timeout.toSeconds() + " s");
    }
}
