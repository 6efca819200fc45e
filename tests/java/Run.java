// SPDX-License-Identifier: Apache-2.0
import static org.junit.platform.engine.discovery.DiscoverySelectors.selectClass;

import java.util.concurrent.atomic.AtomicInteger;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.launcher.LauncherDiscoveryRequest;
import org.junit.platform.launcher.TagFilter;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.core.LauncherDiscoveryRequestBuilder;
import org.junit.platform.launcher.core.LauncherFactory;

/**
 * Runs the tests of a class, or those with a tag: Run CLASS [TAG]. Exit codes: 0, 1 for a failure or when nothing ran,
 * and 77, with "skipped: reason", when every test was skipped.
 */
class Run {
  public static void main(String[] arguments) throws Exception {
    LauncherDiscoveryRequestBuilder request =
        LauncherDiscoveryRequestBuilder.request().selectors(selectClass(arguments[0]));
    if (arguments.length > 1) request.filters(TagFilter.includeTags(arguments[1]));
    LauncherDiscoveryRequest built = request.build();
    AtomicInteger passed = new AtomicInteger();
    AtomicInteger failed = new AtomicInteger();
    AtomicInteger skipped = new AtomicInteger();
    LauncherFactory.create().execute(built, new TestExecutionListener() {
      @Override
      public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        if (result.getStatus() == TestExecutionResult.Status.FAILED) {
          failed.incrementAndGet();
          System.out.println("FAILED " + test.getDisplayName());
          result.getThrowable().ifPresent(Throwable::printStackTrace);
        } else if (result.getStatus() == TestExecutionResult.Status.ABORTED) {
          skipped.incrementAndGet();
          System.out.println("skipped: " + result.getThrowable().map(Throwable::getMessage).orElse("no reason"));
        } else if (test.isTest()) {
          passed.incrementAndGet();
          System.out.println("passed " + test.getDisplayName());
        }
      }
    });
    if (failed.get() > 0 || passed.get() + skipped.get() == 0) System.exit(1);
    System.exit(passed.get() > 0 ? 0 : 77);
  }
}
