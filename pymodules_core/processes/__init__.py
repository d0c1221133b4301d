"""The processes that train one run together: who they are, their collective calls, who failed.

``environment`` imports no torch, which all the rest does.
"""
