// SPDX-License-Identifier: Apache-2.0
package dev.wkv;

/**
 * A token that might have been chosen.
 *
 * @param token its id
 * @param logProbability natural logarithm, under the raw scores (temperature 1, before any option)
 */
public record TokenProbability(int token, float logProbability) {}
