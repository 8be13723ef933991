"""Rehearse a filter: the real proxy, an upstream made for the occasion, and what happened.

Rule: the proxy is only used here, never changed or imitated; nothing of the proxy imports this
package, which may therefore use all of the standard library.
"""
