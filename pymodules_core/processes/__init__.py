"""The processes that train one run together: who they are, what they tell each other, who failed.

``environment`` is asked before torch is needed; all the rest imports it.
"""
