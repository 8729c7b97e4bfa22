"""Where a run also goes: a back end takes what travels to one peer, a source yields what stands in one.

A back end calls its peer and knows nothing of journals, lanes, retries or the store.
"""
