// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/** What was wrong with one item of a batch: among the suppressed exceptions of the one that the step throws. */
public final class ItemException extends WkvException {
  private static final long serialVersionUID = 1;
  /** Where in the list. */
  private final int index;

  ItemException(int index, int code) {
    super(code, "item " + index);
    this.index = index;
  }

  /**
   * Which item.
   *
   * @return its place in the list
   */
  public int index() {
    return index;
  }

  /**
   * Item and status.
   *
   * @return such as "item 3: WKV_MISMATCH"
   */
  @Override
  public String getMessage() {
    return super.getMessage() + ": " + codeName();
  }
}
