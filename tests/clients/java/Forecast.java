import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import market.inference.v1.MarketInferenceServiceGrpc;
import market.inference.v1.PredictRequest;
import market.inference.v1.Series;

/** Prints the quantiles of a forecast. Arguments: HOST PORT CLOSE...; the key is in the environment variable KEY. */
public class Forecast {
    public static void main(String[] arguments) {
        var host = arguments[0];
        var port = Integer.parseInt(arguments[1]);
        var closes = Arrays.stream(arguments).skip(2).map(Double::valueOf).collect(Collectors.toList());

        // docs/languages.md shows the lines from here
        var headers = new Metadata();
        var authorization = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
        headers.put(authorization, "Bearer " + System.getenv("KEY"));
        var channel = ManagedChannelBuilder.forAddress(host, port).usePlaintext()
            .intercept(MetadataUtils.newAttachHeadersInterceptor(headers)).build();
        var stub = MarketInferenceServiceGrpc.newBlockingStub(channel);
        var answer = stub.withDeadlineAfter(30, TimeUnit.SECONDS).predict(PredictRequest.newBuilder().setHorizon(10)
            .addSeries(Series.newBuilder().setSymbol("AAPL").addAllValues(closes)).build());
        System.out.println(answer.getForecasts(0).getForecast().getQuantilesList());
        channel.shutdownNow();
        // to here
    }
}
