// Package logthrottle limits repeated log lines, for the log of a whole process.
//
// [New] wraps the root logger; the loggers that are derived from the result are limited too. Lines of level Warn and
// Error count as the same line if they have the same level, logger name and message, whatever their fields and the
// numbers in the message are. The first lines pass, then one a minute, with the number of those that were left out
// before it in the field "omitted". After a minute without the line, one more line has the message and the rest of
// the count, so that the counts of a line add up, and the line starts anew. All other levels pass.
//
// Memory is bounded: beyond a fixed number of different lines, the further ones count as one line a level.
//
// Lines through [Unlimited] are not limited. Neither are those through hclog's StandardLogger and StandardWriter,
// because hclog gives them the wrapped logger.
//
// The rule is [table], without clock or output; [Throttle] connects it to both.
package logthrottle
